"""Every model of the zoo, built and put on record."""
