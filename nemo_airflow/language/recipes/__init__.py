"""Recipes: factories of configs, called where their libraries are."""
