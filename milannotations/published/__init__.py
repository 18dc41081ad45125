"""Published archives and annotations of MILANNOTATIONS (2022): download, reading, conversion."""
