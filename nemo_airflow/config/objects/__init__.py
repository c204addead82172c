"""Configs themselves: made, built, checked, walked, with where each value comes from."""
