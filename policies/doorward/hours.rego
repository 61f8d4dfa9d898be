# METADATA
# title: Times of day and days of the week
# description: >-
#   Zones are names of the IANA time zone database. Everything here reads the clock, so decisions of a policy that uses it are not cached.
package doorward.hours

# METADATA
# title: Whether it is between two times of day
# description: >-
#   As between("Europe/Berlin", "08:00", "18:30"); the first is within, the last is not. A last that is before the first is on the next
#   day.
between(zone, first, last) if {
	minutes(first) <= minutes(last)
	minutes(first) <= now(zone)
	now(zone) < minutes(last)
}

between(zone, first, last) if {
	minutes(first) > minutes(last)
	now(zone) >= minutes(first)
}

between(zone, first, last) if {
	minutes(first) > minutes(last)
	now(zone) < minutes(last)
}

# METADATA
# title: Whether today is one of the days
# description: days is an array or a set of English names, as "Monday".
on(zone, days) if time.weekday([time.now_ns(), zone]) in days

# METADATA
# title: Whether today is from Monday to Friday
on_weekday(zone) if on(zone, {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday"})

# now is the minute of the day.
now(zone) := (clock[0] * 60) + clock[1] if clock := time.clock([time.now_ns(), zone])

minutes(text) := (to_number(parts[0]) * 60) + to_number(parts[1]) if {
	regex.match(`^([01][0-9]|2[0-4]):[0-5][0-9]$`, text)
	parts := split(text, ":")
}
