"""The parts of the command `milan`. A command parses, calls one public function and prints."""

from milannotations.command_line import Json, console, examples, print_json, print_table

__all__ = ["Json", "console", "examples", "print_json", "print_table"]
