// Prints the calls that lead to a place as the runtime knows them, once for
// each of several ways that compilers inline them.
package main

import (
	"fmt"
	"runtime"
)

type step struct{ depth int }

func (s step) third() []uintptr  { return report(s.depth) }
func (s step) second() []uintptr { return s.third() }
func first(depth int) []uintptr  { return step{depth}.second() }

//go:noinline
func report(depth int) []uintptr {
	callers := make([]uintptr, 16)
	return callers[:runtime.Callers(1, callers)]
}

//go:noinline
func generic[T int | string](depth T) []uintptr {
	return func() []uintptr { return first(len(fmt.Sprint(depth))) }()
}

func main() {
	for _, callers := range [][]uintptr{first(1), generic(2), generic("three")} {
		frames := runtime.CallersFrames(callers)
		for {
			frame, more := frames.Next()
			fmt.Printf("%x %s %s:%d\n", frame.PC, frame.Function, frame.File, frame.Line)
			if !more {
				break
			}
		}
	}
}
