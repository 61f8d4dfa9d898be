# METADATA
# title: Times of day and days of the week
# description: >-
#   Zones are names of the IANA time zone database, as "Europe/Berlin"; times are what a clock on the wall shows there, summer time included.
#   A zone, time or day that is none fails and denies the request. Everything here reads the clock, so decisions of a policy that uses it
#   are not cached.
package doorward.hours

import data.doorward.fault

# METADATA
# title: Whether it is between two times of day
# description: >-
#   As between("Europe/Berlin", "08:00", "18:30"); the first is within, the last is not, and "24:00" is the end of the day. A last that is
#   before the first is on the next day.
between(zone, first, last) if {
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
# description: >-
#   days is an array or a set of English names, as "Monday". A night that begins on Friday is on Saturday after midnight.
on(zone, days) if time.weekday([time.now_ns(), zone]) in days

on(_, days) if {
	some day in days
	not day in week
	fault.raise(sprintf("hours.on: %v is no day; they are Monday, Tuesday and so on", [day]))
}

on(_, days) if fault.unless_list("hours.on", days)

# METADATA
# title: Whether today is from Monday to Friday
on_weekday(zone) if on(zone, week - {"Saturday", "Sunday"})

week := {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}

# now is the minute of the day.
now(zone) := (clock[0] * 60) + clock[1] if clock := time.clock([time.now_ns(), zone])

minutes(text) := (to_number(parts[0]) * 60) + to_number(parts[1]) if {
	is_time(text)
	parts := split(text, ":")
}

minutes(text) := fault.raise(sprintf("hours.between: %v is no time of day; write it as 08:00", [text])) if not is_time(text)

is_time(text) if regex.match(`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`, text)
