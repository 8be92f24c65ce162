"""How good a model is: per patient and head, on crops of nodules, on whole scans; and pictures of where it errs."""
