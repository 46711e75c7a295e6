"""Personal data as the application sees it: rows that are sealed on the way in and opened on the way out."""
