"""Lung nodules: candidates, their shape, their measurements. torch, NumPy and SimpleITK; imports engine and what lies below."""
