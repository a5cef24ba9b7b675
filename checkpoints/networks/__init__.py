"""Modules of the networks that the host has no class for."""
