/** Sorts and formats, for the CPU seconds that are given. */
public class Burn {
    static double cpuSeconds() {
        return ProcessHandle.current().info().totalCpuDuration().orElseThrow().toNanos() * 1e-9;
    }

    static long descend(int depth, long seed) {
        return depth == 0 ? Long.rotateLeft(seed * 6364136223846793005L, 17)
                : descend(depth - 1, seed + depth) ^ seed;
    }

    static long work(long seed) {
        long[] numbers = new long[2000];
        for (int i = 0; i < numbers.length; i++) {
            seed = descend(30, seed) | 1;
            numbers[i] = seed;
        }
        java.util.Arrays.sort(numbers);
        StringBuilder text = new StringBuilder();
        for (long number : numbers) {
            text.append(number % 1000).append(' ');
        }
        return text.toString().hashCode() | 1L;
    }

    public static void main(String[] arguments) {
        double seconds = Double.parseDouble(arguments[0]);
        long state = 1;
        while (cpuSeconds() < seconds) {
            for (int i = 0; i < 20; i++) {
                state += work(state);
            }
        }
        System.out.println(state);
    }
}
