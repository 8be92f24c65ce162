"""Slice-wise CT segmentation with UNet++; nothing is imported until it is asked for, so that Slicer starts quickly."""
