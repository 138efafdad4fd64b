"""One store for everything that was answered.

record   what is kept of one answer
thread   what is kept of one conversation beside its answers
schema   the database's tables, one numbered migration after the other
search   a user's search as an SQL condition
store    reads and writes, safe with several processes
compare  what differs between two records
"""
