"""Several machines that answer at one address: Ray places, watches and restarts, each machine runs `seventy serve`.

A model is never split here: every machine holds all of it. Nothing of Ray is imported by routing, front and key.
"""
