"""The generators of random bits, the numbers of elements that they count by, and noise from their bits."""
