"""Lung nodules: searching, growing, rejecting vessels, measuring. torch, NumPy, SciPy and SimpleITK; imports engine and what lies below."""
