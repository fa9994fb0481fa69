"""The one notion of "same value": in a process, across processes, of calls."""
