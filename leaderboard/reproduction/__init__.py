"""The paper's tables and applications, reproduced."""
