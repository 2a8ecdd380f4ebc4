// Exceptions that pass through virtual calls and lambdas, again and again.
#include "burn.h"

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Shape {
    virtual ~Shape() = default;
    virtual uint64_t area(uint64_t seed) const = 0;
};

struct Square final : Shape {
    OWN_FRAME uint64_t area(uint64_t seed) const override
    {
        return churn(seed, 300);
    }
};

struct Missing final : Shape {
    OWN_FRAME uint64_t area(uint64_t seed) const override
    {
        std::string said = "no area of " + std::to_string(seed);
        throw std::runtime_error(said);
    }
};

OWN_FRAME uint64_t apply(const std::function<uint64_t(const Shape &)> &of, const Shape &shape)
{
    return of(shape) + 1;
}

OWN_FRAME uint64_t sum(const std::vector<std::unique_ptr<Shape>> &shapes, uint64_t seed)
{
    uint64_t total = seed;
    for (const auto &shape : shapes) {
        try {
            total += apply([&](const Shape &one) { return one.area(total | 1) + seed; }, *shape);
        } catch (const std::exception &error) {
            total ^= std::string(error.what()).size();
        }
    }
    return total;
}

} // namespace

int main(int argc, char **argv)
{
    const double seconds = seconds_argument(argc, argv);
    std::vector<std::unique_ptr<Shape>> shapes;
    for (int i = 0; i < 40; i++) {
        if (i % 4 == 0)
            shapes.push_back(std::make_unique<Missing>());
        else
            shapes.push_back(std::make_unique<Square>());
    }
    uint64_t total = 1;
    while (cpu_seconds() < seconds)
        total = sum(shapes, total);
    return total == 0;
}
