"""Readers of brain data as laboratories keep it, each by the library of its field."""
