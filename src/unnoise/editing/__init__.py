"""What can be changed: a picture that is there, made partly anew."""
