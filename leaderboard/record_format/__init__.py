"""Records of scores and applications: schema, reading, writing."""
