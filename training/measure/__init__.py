"""Figures of a model: per patient and head, on crops of nodules, on whole scans; what is fitted to them; and pictures of its errors."""
