"""Block dropout, section 4: one decision for a block of instances and a group of units."""
