"""From a volume and a network to maps of it: boxes, batches, maps, the organ. torch and NumPy; imports network and core."""
