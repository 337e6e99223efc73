"""Migrations of the coordinator's database."""
