"""From a volume and a network to a result: boxes, batches, maps, the organ. torch and NumPy; imports files, network and core."""
