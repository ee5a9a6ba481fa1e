// The published numbers of vertical lines and slashes: see attention/minference.go.
#ifndef WN_MINFERENCE_H
#define WN_MINFERENCE_H

enum {
	WN_LAST_QUERIES = 64, // whose attention is computed
	WN_FIRST_COLUMNS = 30, // that are always read
	WN_NEAR_DIAGONALS = 100, // that come before all others
};

#endif
