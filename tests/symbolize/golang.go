// What compilers do to Go: methods, generics, closures, calls inlined into calls.
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
)

type meter struct{ turns int }

type number interface{ ~int | ~float64 }

func innermost(x int) int { return x*3 + len(os.Args) }
func middle(x int) int    { return innermost(x) + innermost(x+1) }

//go:noinline
func (m *meter) turn(x int) int {
	m.turns += middle(x)
	return middle(m.turns)
}

//go:noinline
func sum[N number](values []N) N {
	var total N
	for _, value := range values {
		total += value
	}
	return total
}

func main() {
	m := &meter{4}
	values := []int{3, 1, 2}
	sort.Slice(values, func(i, j int) bool { return m.turn(values[i]) < m.turn(values[j]) })
	fmt.Println(m.turn(5), sum(values), sum([]float64{1, 2}), strings.Repeat("x", m.turns%3))
}
