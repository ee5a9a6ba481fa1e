package text

// Filters that cut a list into lists, and the table of all filters.

func filterGroupBy(in *interp, v Value, a values) (Value, error) {
	arg, err := a.need(1, "groupby", "attribute", "default", "case_sensitive")
	if err != nil {
		return v, err
	}
	items, err := in.iterate(v)
	if err != nil {
		return v, err
	}
	folded, err := in.sortKeys(items, arg[0], arg[2])
	if err != nil {
		return v, err
	}
	for i := range folded {
		if folded[i].kind == kindUndefined && arg[1].kind != kindUndefined {
			folded[i] = arg[1]
		}
	}
	order := make([]Value, len(items))
	for i := range order {
		order[i] = tupleValue(folded[i], items[i])
	}
	if order, err = in.sorted(order, folded, Value{}); err != nil {
		return v, err
	}
	var out []Value
	for from := 0; from < len(order); {
		key := order[from].items()[0]
		var group []Value
		for ; from < len(order); from++ {
			same, err := in.equal(order[from].items()[0], key)
			if err != nil {
				return v, err
			}
			if !same {
				break
			}
			group = append(group, order[from].items()[1])
		}
		shown, err := in.path(group[0], arg[0])
		if err != nil {
			return v, err
		}
		if shown.kind == kindUndefined {
			shown = arg[1]
		}
		entry := &list{items: []Value{shown, List(group...)}, names: []string{"grouper", "list"}}
		out = append(out, Value{kind: kindTuple, ref: entry})
	}
	return List(out...), nil
}

// sized returns the items of v, the first argument as a number from 1 up, and what to fill with.
func (in *interp) sized(v Value, a values, what string) (items []Value, n int, fill Value, err error) {
	arg, err := a.need(1, what, "n", "fill_with")
	if err != nil {
		return nil, 0, fill, err
	}
	if items, err = in.iterate(v); err != nil {
		return nil, 0, fill, err
	}
	wide, ok := arg[0].whole()
	if !ok || wide < 1 {
		return nil, 0, fill, failf("%s needs a number from 1 up", what)
	}
	if wide > maxRange {
		return nil, 0, fill, limitError(what + " is too wide")
	}
	return items, int(wide), arg[1], in.chargeItems(len(items) + int(wide))
}

func isMissing(v Value) bool { return v.kind == kindUndefined || v.kind == kindNone }

func filterBatch(in *interp, v Value, a values) (Value, error) {
	items, n, fill, err := in.sized(v, a, "batch")
	if err != nil {
		return v, err
	}
	var out []Value
	for at := 0; at < len(items); at += n {
		row := append([]Value(nil), items[at:min(at+n, len(items))]...)
		for len(row) < n && !isMissing(fill) {
			row = append(row, fill)
		}
		out = append(out, List(row...))
	}
	return List(out...), nil
}

func filterSlice(in *interp, v Value, a values) (Value, error) {
	items, n, fill, err := in.sized(v, a, "slice")
	if err != nil {
		return v, err
	}
	each, longer := len(items)/n, len(items)%n
	var out []Value
	at := 0
	for i := range n {
		size := each
		if i < longer {
			size++
		}
		row := append([]Value(nil), items[at:at+size]...)
		at += size
		if i >= longer && !isMissing(fill) {
			row = append(row, fill)
		}
		out = append(out, List(row...))
	}
	return List(out...), nil
}

func filterAttr(in *interp, v Value, a values) (Value, error) {
	arg, err := a.oneText("attr")
	if err != nil {
		return v, err
	}
	if v.kind == kindDict && methodOf(v, arg.s) == nil { // entries are no attributes
		return v.lacks(arg.s), nil
	}
	return in.attribute(v, arg.s)
}

// filterTable holds the filters.
var filterTable = map[string]filter{
	"abs":         filterAbs,
	"attr":        filterAttr,
	"batch":       filterBatch,
	"capitalize":  onText(textCapitalize),
	"center":      filterCenter,
	"count":       filterLength,
	"d":           filterDefault,
	"default":     filterDefault,
	"dictsort":    filterDictSort,
	"e":           filterEscape,
	"escape":      filterEscape,
	"first":       filterFirst,
	"float":       filterFloat,
	"forceescape": filterForceEscape,
	"format":      filterFormat,
	"groupby":     filterGroupBy,
	"indent":      filterIndent,
	"int":         filterInt,
	"items":       filterItems,
	"join":        filterJoin,
	"last":        filterLast,
	"length":      filterLength,
	"list":        filterList,
	"lower":       onText(mapped(lowerRune)),
	"map":         filterMap,
	"max":         extreme("max", 1),
	"min":         extreme("min", -1),
	"reject":      pick(0, Bool(false)),
	"rejectattr":  pick(1, Bool(false)),
	"replace":     filterReplace,
	"reverse":     filterReverse,
	"round":       filterRound,
	"safe":        filterSafe,
	"select":      pick(0, Bool(true)),
	"selectattr":  pick(1, Bool(true)),
	"slice":       filterSlice,
	"sort":        filterSort,
	"string":      filterString,
	"sum":         filterSum,
	"title":       filterTitle,
	"tojson":      filterToJSON,
	"trim":        onText(trimmed("lr")),
	"truncate":    filterTruncate,
	"unique":      filterUnique,
	"upper":       onText(mapped(upperRune)),
	"urlencode":   filterURLEncode,
	"wordcount":   filterWordCount,
}

func filterCenter(in *interp, v Value, a values) (Value, error) {
	if len(a.pos) == 0 && !a.has("width") {
		a.pos = []Value{Int(80)}
	}
	return onText(padded("c"))(in, v, a)
}
