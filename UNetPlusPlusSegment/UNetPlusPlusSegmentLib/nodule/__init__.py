"""Lung nodules: where to look, what is one, what it measures. torch, NumPy and SimpleITK; imports engine and what lies below."""
