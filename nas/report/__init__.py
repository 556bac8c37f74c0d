"""Views of a run: tables, pictures, progress; rebuilt from its storage at any time.

Each is imported from its own module: what a space holds is said without the libraries that tables and pictures need.
"""
