"""Figures of a model: per patient and head, on crops of nodules, on whole scans; and pictures of its errors."""
