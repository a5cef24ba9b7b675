"""Does a picture obey its condition?"""
