"""Editing: does ablating the units described as text repair a network?"""
