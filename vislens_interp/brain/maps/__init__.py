"""What each place of a brain prefers along named axes, and where that is weakly supported."""
