"""Lung nodules: searching, growing, rejecting vessels, measuring. torch, NumPy and SimpleITK; imports engine and what lies below."""
