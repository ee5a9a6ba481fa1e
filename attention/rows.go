package attention

import "github.com/winnow-llm/winnow/tensor"

// Rows as references of selectors read them: in host memory, widened.

// headRows are count rows of a matrix of F32 from first on, each the dim values from at on.
func headRows(m tensor.Mat, first, count, at, dim int) [][]float64 {
	rows := make([][]float64, count)
	for i := range rows {
		rows[i] = make([]float64, dim)
		for d, v := range m.F32()[(first+i)*m.Cols+at:][:dim] {
			rows[i][d] = float64(v)
		}
	}
	return rows
}

// keys are the first keys of a sequence in one head; pages is the step's page table.
func (c *Cache) keys(pages tensor.Mat, seq, head, count int) [][]float64 {
	read, rows := c.key(), make([][]float64, count)
	for i := range rows {
		tile := c.Tile(pages.I32()[seq*pages.Cols+i/PageTokens], head)
		rows[i] = make([]float64, c.Dim)
		for d := range rows[i] {
			rows[i][d] = float64(read(tile, i%PageTokens, d))
		}
	}
	return rows
}

// dot is the inner product of two rows.
func dot(a, b []float64) (sum float64) {
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}
