"""What came out of a visualisation: pictures, responses and statistics, and how they are kept."""
