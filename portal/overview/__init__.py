"""The first page of a workspace, and of the system: it reads all the other rooms, and changes nothing in them."""
