/*
 * The program that the guest profiles. Its call chain is known from the first
 * frame of the process to the last: everything keeps a frame pointer, and there
 * is no C library, whose entry code keeps none.
 *
 *   fixture recurse SECONDS   spins under DEPTH frames of descend
 *   fixture fork SECONDS      the same, each time in a new child; exits 7
 *   fixture brief MS          the same for so much CPU time
 *   fixture launch COUNT      runs /bin/brief so often, for 3 ms each
 */
#define SYS_FORK 57
#define SYS_EXECVE 59
#define SYS_EXIT 60
#define SYS_WAIT4 61
#define SYS_CLOCK_GETTIME 228
#define CLOCK_MONOTONIC 1
#define CLOCK_PROCESS_CPUTIME_ID 2

#define FRAME __attribute__((noipa))

static volatile unsigned long work;
static int steps = 1000000;

static inline long system_call(long number, long a, long b, long c, long d)
{
	long result;
	register long fourth __asm__("r10") = d;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
			 : "rcx", "r11", "memory");
	return result;
}

static long now_s(void)
{
	long time[2] = { 0, 0 };

	system_call(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (long)time, 0, 0);
	return time[0];
}

static long cpu_us(void)
{
	long time[2] = { 0, 0 };

	system_call(SYS_CLOCK_GETTIME, CLOCK_PROCESS_CPUTIME_ID, (long)time, 0, 0);
	return time[0] * 1000000 + time[1] / 1000;
}

static _Noreturn void leave(long code)
{
	for (;;)
		system_call(SYS_EXIT, code, 0, 0, 0);
}

/*
 * Its counter is on the stack: to a function that does not touch the stack gcc
 * gives no frame, whatever it is told, and the walk would miss its caller.
 */
FRAME void spin(void)
{
	for (volatile int i = 0; i < steps; i++)
		work += 1;
}

/* The addition after the call keeps it from becoming a jump. */
FRAME void descend(int depth)
{
	if (depth <= 1)
		spin();
	else
		descend(depth - 1);
	work += 1;
}

FRAME void recurse_until(long end_s)
{
	while (now_s() < end_s)
		descend(DEPTH);
}

/* In steps that are short on an emulated machine too. */
FRAME void recurse_briefly(long ms)
{
	const long end_us = cpu_us() + ms * 1000;

	steps = 1000;
	while (cpu_us() < end_us)
		descend(DEPTH);
}

FRAME void fork_until(long end_s)
{
	while (now_s() < end_s) {
		long child = system_call(SYS_FORK, 0, 0, 0, 0);

		if (child == 0) {
			for (int i = 0; i < 10; i++)
				descend(DEPTH);
			leave(0);
		}
		if (child > 0)
			system_call(SYS_WAIT4, child, 0, 0, 0);
	}
}

FRAME void launch(long count)
{
	const char *const arguments[] = { "brief", "brief", "3", 0 };
	const char *const environment[] = { 0 };

	while (count-- > 0) {
		long child = system_call(SYS_FORK, 0, 0, 0, 0);

		if (child == 0) {
			system_call(SYS_EXECVE, (long)"/bin/brief", (long)arguments,
				    (long)environment, 0);
			leave(1);
		}
		if (child > 0)
			system_call(SYS_WAIT4, child, 0, 0, 0);
	}
}

static long number(const char *text)
{
	long value = 0;

	for (; *text >= '0' && *text <= '9'; text++)
		value = 10 * value + (*text - '0');
	return value;
}

/* What the kernel leaves on the stack: the count of arguments, then they. */
FRAME void begin(const long *stack)
{
	const char *const *arguments = (const char *const *)(stack + 1);

	if (stack[0] != 3)
		leave(2);
	if (arguments[1][0] == 'r') {
		recurse_until(now_s() + number(arguments[2]));
		leave(0);
	}
	if (arguments[1][0] == 'b') {
		recurse_briefly(number(arguments[2]));
		leave(0);
	}
	if (arguments[1][0] == 'l') {
		launch(number(arguments[2]));
		leave(0);
	}
	fork_until(now_s() + number(arguments[2]));
	leave(7);
}

__asm__(".text\n"
	".globl _start\n"
	".type _start, @function\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call begin\n"
	"	hlt\n"
	".size _start, . - _start\n");
