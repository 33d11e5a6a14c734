"""Object stores of Google Cloud and Azure, through the optional package obstore."""
