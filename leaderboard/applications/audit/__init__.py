"""Auditing: which units are described with given words, such as faces?"""
