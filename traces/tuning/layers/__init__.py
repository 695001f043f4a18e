"""Modules that tunings put into a model: the only files here that need torch to be imported."""
