"""The slice engine: from a volume and a network to probability maps and segments. torch and NumPy; imports network and core."""
