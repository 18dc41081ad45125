"""Analysis: do descriptions tell which units matter to a network?"""
