"""The promises, measured on the real product with real processes: ``make bench``."""
