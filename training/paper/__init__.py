"""The table of the UNet++ paper: trainings, records, table, figures."""
