"""Pass-by-pass debugging: bisect, diff, why-not, profile, reduce."""
