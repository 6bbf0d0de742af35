"""Fetches, cleans and checks the text that kvcast's models are trained on (../prepare.py)."""
