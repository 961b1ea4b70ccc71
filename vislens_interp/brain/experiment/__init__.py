"""A closed loop with a laboratory: pictures out, responses back, and a surrogate that chooses the next pictures."""
