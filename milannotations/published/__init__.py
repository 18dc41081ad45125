"""The published archives and annotations of MILANNOTATIONS (2022)."""
