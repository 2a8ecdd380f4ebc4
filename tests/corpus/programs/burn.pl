# Sorting, matching and recursion, for the CPU seconds that are given.
use strict;
use warnings;

sub fibonacci {
    my $n = shift;
    return $n < 2 ? $n : fibonacci($n - 1) + fibonacci($n - 2);
}

sub work {
    my %counts;
    for my $word (sort { $a cmp $b } map { 'word' . ($_ * 7919 % 1000) } 1 .. 500) {
        $counts{$1}++ if $word =~ /^w(o\w+\d)\d*$/;
    }
    return keys(%counts) + fibonacci(12);
}

my $end = shift;
while (1) {
    my ($user, $system) = times;
    last if $user + $system >= $end;
    work();
}
